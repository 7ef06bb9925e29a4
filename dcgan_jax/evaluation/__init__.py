"""The quality of samples and of a network's features: FID and similar metrics, and the tables of the paper."""
