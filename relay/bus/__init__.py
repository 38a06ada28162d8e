"""Messages between workers, over Unix-domain stream sockets: best effort, ordered, bounded.

The bus guarantees little: what is lost with a link, or dropped at a limit, is repaired from the
log.
"""
