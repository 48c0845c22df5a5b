"""Pretraining and generation: any data set, several tasks, shares kept, samples that leave training as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes_support import script

from alm.arguments import ConfigFileError
from alm.checkpoint import load_checkpoint
from alm.data.example import CAPTION, TRANSCRIPT, DataError
from alm.training.sources import data_sets
