"""Programs around a model's script. They run as files, with Python 3.8 or newer and nothing else."""
