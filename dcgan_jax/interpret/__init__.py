"""What a trained network has learned: the paper's figures."""
