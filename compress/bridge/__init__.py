"""The one place that knows Keras 2: twins of our models for tensorflow-model-optimization."""
