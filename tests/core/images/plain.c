/* A library that knows nothing of Python: one for all images. */
int plain_count(void);
void omp_set_num_threads(int number);
int omp_get_max_threads(void);

int plain_count(void)
{
    static int count;
    return ++count;
}

static _Thread_local int threads = 8; /* as OpenMP keeps it, for each thread */

void omp_set_num_threads(int number)
{
    threads = number;
}

int omp_get_max_threads(void)
{
    return threads;
}
