#!/bin/sh
echo "Post-Script test called ${1:-0}"
