/* Pages, each owned by one place at a time, in a pool without a lock. */
#define PAGES 1024
#define PAGE 4096

/* Not a number of a domain: nobody has seen the page, it is zero. */
#define ZERO (1u << 16)

struct page {
    uint8_t *bytes;
    uint32_t gfn, index, next, known;
    uint16_t dirty_start, dirty_end;
    uint64_t shares;
};

static struct page pages[PAGES];
static struct {
    uint64_t head; /* index of the first free page, a tag above it */
} pool;

/* -- pool: a stack whose head moves by one compare-exchange ------------------------------- */

/* Takes up to n pages with one exchange: they stay linked. Returns how many. */
static NOINLINE unsigned pool_take(unsigned n, uint32_t *first)
{
    uint64_t head = __atomic_load_n(&pool.head, __ATOMIC_ACQUIRE);
    for (;;) {
        uint32_t after = (uint32_t)head;
        unsigned count = 0;
        while (count < n && after < PAGES) {
            after = __atomic_load_n(&pages[after].next, __ATOMIC_RELAXED);
            count++;
        }
        if (count == 0)
            return 0;
        uint64_t moved = ((head & ~0xffffffffull) + (1ull << 32)) | after;
        if (__atomic_compare_exchange_n(&pool.head, &head, moved, 1, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE)) {
            *first = (uint32_t)head;
            return count;
        }
    }
}

static NOINLINE void pool_put(struct page *page)
{
    uint64_t moved, head = __atomic_load_n(&pool.head, __ATOMIC_RELAXED);
    do {
        __atomic_store_n(&page->next, (uint32_t)head, __ATOMIC_RELAXED);
        moved = ((head & ~0xffffffffull) + (1ull << 32)) | page->index;
    } while (!__atomic_compare_exchange_n(&pool.head, &head, moved, 1, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
}

/* When no page is at hand. */
static COLD struct page *pool_take_one(void)
{
    uint32_t first;
    return pool_take(1, &first) ? &pages[first] : NULL;
}

/* -- whose bytes a page holds --------------------------------------------------------------- */

static inline void mark(struct page *page, uint16_t start, uint16_t end)
{
    if (start < page->dirty_start)
        page->dirty_start = start;
    if (end > page->dirty_end)
        page->dirty_end = end;
}

static void pages_init(void)
{
    uint8_t *bytes = calloc(PAGES, PAGE);
    for (int i = 0; i < PAGES; i++) {
        struct page page = { bytes + i * PAGE, 1000 + i, i, i + 1, ZERO, PAGE, 0, 0 };
        pages[i] = page;
    }
}
