#!/bin/bash
# Pre-training without a batch system: this on each machine, with its number and the address of the first one.
#   NODES=2 DEVICES=4 NODE=0 FIRST=10.0.0.1 bash torchrun.sh --config paper-stage1 --out runs/stage1
torchrun --nnodes "$NODES" --nproc-per-node "$DEVICES" --node-rank "$NODE" \
    --master-addr "$FIRST" --master-port "${PORT:-29500}" \
    -m molspectra pretrain "$@" --resume --loop.nodes "$NODES" --loop.devices "$DEVICES"
