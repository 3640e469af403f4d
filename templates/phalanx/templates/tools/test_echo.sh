#!/bin/sh
# Prints its arguments: the command of the test tools.
echo "$@"
