#!/bin/sh
echo "Pre-Script test called ${1:-0}"
