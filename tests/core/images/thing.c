/* An "extension": static data of its own, two libraries, a call that is overridden, a symbol that
 * the loader would unite over all images. */
int PyGILState_Ensure(void);
int helper_count(void);
int plain_count(void);
int omp_get_max_threads(void);
void openblas_set_num_threads(int number);
int openblas_get_num_threads(void);
int threads_at_load(void);

int thing_omp_threads(void);
int thing_blas_threads(void);
int thing_blas_threads_at_load(void);
int thing_blas_choose_three(void);
int thing_count(void);
int thing_helper_count(void);
int thing_plain_count(void);
int thing_ask(void);
int thing_ask_by_pointer(void);
int thing_unique_count(void);

int thing_count(void)
{
    static int count = 10; /* in .data, not in .bss */
    return ++count;
}

int thing_helper_count(void)
{
    return helper_count();
}

int thing_plain_count(void)
{
    return plain_count();
}

int thing_ask(void)
{
    return PyGILState_Ensure();
}

static int (*const volatile pointer)(void) = PyGILState_Ensure; /* relocated, then read-only */

int thing_ask_by_pointer(void)
{
    return pointer();
}

extern int unique;
__asm__(".pushsection .data\n"
        ".globl unique\n"
        ".type unique, %gnu_unique_object\n"
        ".size unique, 4\n"
        ".balign 4\n"
        "unique: .long 0\n"
        ".popsection\n");

int thing_unique_count(void)
{
    return ++unique;
}

int thing_omp_threads(void)
{
    return omp_get_max_threads();
}

int thing_blas_threads(void)
{
    return openblas_get_num_threads();
}

int thing_blas_threads_at_load(void)
{
    return threads_at_load();
}

int thing_blas_choose_three(void)
{
    openblas_set_num_threads(3);
    return 0;
}
