"""Training, mirrored from models/training."""
