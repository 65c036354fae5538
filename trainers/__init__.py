"""Trainers of deblurring and super-resolution models on the shards of `blurgen make`."""
