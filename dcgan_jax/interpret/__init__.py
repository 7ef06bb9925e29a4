"""The paper's figures: what a trained network has learned."""
