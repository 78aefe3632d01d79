"""Encoders as a study describes them, and a cache of captions that lie in no data set."""

from mdm.config.base import parse
from mdm.config.recipe import EncoderRecipe
from mdm.config.text import ENCODERS
from mdm.data.text import encoder
from mdm.data.text.cache import make_shard
from mdm.data.text.captions import SHARD_CAPTIONS, Captions, listed
from mdm.data.text.gather import write_lookup


def load_encoder(spec):
    """The encoder of {"name", "settings"}; its width, where the settings do not say it, is that of small T5 folders."""
    settings = parse(ENCODERS[spec["name"]], spec.get("settings", {}), "text.x")
    channels = spec.get("channels", getattr(settings, "channels", 16))
    return encoder.load(EncoderRecipe(name=spec["name"], settings=settings, channels=channels))


def write_cache(folder, captions, network, shard_captions=SHARD_CAPTIONS):
    """Embed captions and ""; returns what a manifest says of them."""
    listing = listed(Captions((), captions), shard_captions)
    for number in range(listing.shards):
        make_shard(folder, number, listing, network)
    return write_lookup(folder, listing, (network.channels, str(network.stored)))
