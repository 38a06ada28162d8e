"""Worker to worker, over Unix-domain stream sockets: best effort, in order, bounded.

The bus promises little: what is lost with a link, or dropped at its bound, is repaired from the
log.
"""
