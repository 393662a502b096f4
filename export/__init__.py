"""Turns a trained run into a bundle: the one bridge between training and serving."""
