"""Calibration: a script that measures a user's GPU, its file read, a model's parameters fitted.

Nothing here knows a device: a model is a function of named parameters that gives latencies in µs.
"""
