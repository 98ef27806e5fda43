"""The Open Inference Protocol's inference requests and answers, apart from how they travel."""
