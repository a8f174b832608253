#!/usr/bin/env bash
# Everything in this folder, made anew by the embedded models: bash samples/make.sh
set -euo pipefail
cd "$(dirname "$0")/.."
seqvae generate -n 4 --bars 8 --metre 6/8 --key D --tempo 96 --program flute --seed 1 -o samples/jigs
seqvae generate -n 4 --bars 8 --metre 4/4 --key G --tempo 110 --program fiddle --top-p 0.9 --seed 2 -o samples/reels
seqvae generate -n 4 --bars 16 --metre 6/8 --key D --tempo 100 --program flute --seed 4 -o samples/sixteen
seqvae interpolate samples/sixteen/melody-01.mid samples/sixteen/melody-02.mid --steps 5 -o samples/sixteen-morph
seqvae shift data/crab_apple_lane.mid --attribute note-density --by -1 --by 0 --by 1 --png -o samples/shift
seqvae interpolate data/crab_apple_lane.mid data/heron_weather.mid --steps 7 -o samples/morph
seqvae reconstruct data/crab_apple_lane.mid --png -o samples/reconstruction
seqvae vary data/crab_apple_lane.mid --amount 0.3 -n 3 --seed 1 -o samples/variations
mkdir -p samples/sentences
seqvae generate --model sentences -n 20 --seed 1 -o samples/sentences/new.txt
seqvae generate --model sentences -n 20 --beam 5 --seed 1 -o samples/sentences/new-beam.txt
seqvae interpolate "he opened the door" "the children laughed at the clown" --model sentences --steps 9 -o samples/sentences/door-to-clown.jsonl
seqvae interpolate "the weather was lovely" "she lost her keys" --model sentences --steps 9 --beam 5 -o samples/sentences/weather-to-keys.jsonl
seqvae vary "we sat by the fire" --model sentences --amount 0.4 -n 8 --seed 1 -o samples/sentences/fire-varied.txt
