"""The train stage: reference models, augmentation and the training loop."""
