/* A library that knows nothing of Python: one for all images. */
int plain_count(void);

int plain_count(void)
{
    static int count;
    return ++count;
}
