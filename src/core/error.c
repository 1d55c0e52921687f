/* error: the English texts of the codes in plait/error.h.
 *
 * Any thread. There is no state.
 */
#include "plait/error.h"

const char *plait_error_text(int code)
{
    switch (code) {
    case PLAIT_OK:
        return "success";
#define CASE(name, number, text)                                                                   \
    case number:                                                                                   \
        return text;
        PLAIT_ERRORS(CASE)
        PLAIT_OUTCOMES(CASE)
#undef CASE
    default:
        return "unknown code";
    }
}
