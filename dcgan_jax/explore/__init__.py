"""Exploring a trained generator in a browser: what it computes, and the page that shows it."""
