"""Reads and writes networks of other projects: the authors' Theano weights, PyTorch's DCGAN example."""
