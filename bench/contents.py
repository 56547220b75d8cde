"""What pages and blocks of benchmarks hold: the same for memory and disks."""

PAGE = 4096
MIB = 1 << 20
WORDS = (
    "the a of and cross river bird flies host guest memory disk page block moves while runs is not "
    "north south wing water error info warn start stop from to with port link user root GET POST "
    "200 404 id= time= size= name= 0x 7788 failed done if return int static const struct void char"
).split()


def text_pages(count, chance):
    """Words in no order, so that they shrink by what they are and not by what was there before."""
    pool = " ".join(chance.choices(WORDS, k=2 * MIB)).encode()
    for _ in range(count):
        at = chance.randrange(len(pool) - PAGE)
        yield pool[at : at + PAGE]


def noise_pages(count, chance):
    for _ in range(count):
        yield chance.randbytes(PAGE)
