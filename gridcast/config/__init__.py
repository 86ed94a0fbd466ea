"""Experiments as checked settings: the models, and the two ways to load them."""

from gridcast.config.loading import config_from_dict as config_from_dict
from gridcast.config.loading import dump_config as dump_config
from gridcast.config.loading import load_config as load_config
from gridcast.config.schema import Config as Config
