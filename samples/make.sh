#!/usr/bin/env bash
# Everything in this folder, made anew by the embedded model: bash samples/make.sh
set -euo pipefail
cd "$(dirname "$0")/.."
seqvae generate -n 4 --bars 8 --metre 6/8 --key D --tempo 96 --program flute --seed 1 -o samples/jigs
seqvae generate -n 4 --bars 8 --metre 4/4 --key G --tempo 110 --program fiddle --top-p 0.9 --seed 2 -o samples/reels
seqvae interpolate data/crab_apple_lane.mid data/heron_weather.mid --steps 7 -o samples/morph
seqvae reconstruct data/crab_apple_lane.mid --png -o samples/reconstruction
seqvae vary data/crab_apple_lane.mid --amount 0.3 -n 3 --seed 1 -o samples/variations
