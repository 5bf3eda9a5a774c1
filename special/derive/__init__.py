"""Making renditions: of one master, of a bucket of them, from a queue.

policy       which sizes, for whom, how encoded
candidates   which masters: named, listed, or read from a file
plan         what must be done for one of them; pure
maker        does it, or tells what it would do, or what is wrong
fleet        many at once, in bounded memory
progress     what the terminal shows
run          all of it together, to an exit code
"""
