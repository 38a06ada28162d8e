"""Device keys: the user's own, with which a client logs in, and those of other senders. No I/O
except in ``key_files``, ``device_key`` and ``credentials``.
"""
