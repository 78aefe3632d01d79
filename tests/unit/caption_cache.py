"""A cache of captions that lie in no data set."""

from mdm.data.text.cache import make_shard
from mdm.data.text.captions import SHARD_CAPTIONS, Captions, listed
from mdm.data.text.gather import write_lookup


def write_cache(folder, captions, encoder, shard_captions=SHARD_CAPTIONS):
    """Embed captions and ""; returns what a manifest says of them."""
    listing = listed(Captions((), captions), shard_captions)
    for number in range(listing.shards):
        make_shard(folder, number, listing, encoder)
    return write_lookup(folder, listing, (encoder.channels, str(encoder.stored)))
