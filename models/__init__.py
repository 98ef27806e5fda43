"""What a DeepViT is, and how a trained one is read."""
