/* A library that uses "Python": each set of images has one of its own. */
int PyTest_Value(void);
int helper_count(void);

int helper_count(void)
{
    static int count;
    count += PyTest_Value();
    return count;
}
