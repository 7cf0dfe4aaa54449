"""The deploy stage: TFLite export, verification, evaluation and prediction."""
