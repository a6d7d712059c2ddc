"""``python -m embedcache.encoders.mini corpus | train | evaluate``."""

import sys

from embedcache.encoders.mini.commands import app
from embedcache.errors import EmbedCacheError

if __name__ == "__main__":
    try:
        app()
    except EmbedCacheError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
