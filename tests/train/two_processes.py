"""What each of two processes runs in test_finetune.py: a training run that stops after two steps, then the rest of it."""

import json
import sys
from pathlib import Path

import torch.distributed as dist

from multiverse.train.loop import Running, Settings, train

settings, out = json.loads(sys.argv[1])
for stop_after in (2, 0):
    train(Settings(**settings), Running(log_every=1, save_every=2, stop_after=stop_after), Path(out))
dist.destroy_process_group()
