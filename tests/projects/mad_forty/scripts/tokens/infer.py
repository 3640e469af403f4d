"""A model whose script is a Python file."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--tokens", type=int, default=16)
print("tokens:", parser.parse_args().tokens)
print("performance: 640.25 tokens/s")
