"""The compress stage: distillation from a teacher into a compact student."""
