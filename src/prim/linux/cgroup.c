/* prim/linux/cgroup: the processor quota that control groups put on this process.
 *
 * /proc/self/cgroup names the process's group in every hierarchy, /proc/self/mountinfo tells where
 * the hierarchies are mounted and which part of each. A quota anywhere between the group and the
 * mount's root holds, so the smallest along the path counts. Every failure to read means "no
 * limit": a container may hide any of these files. Any thread.
 * Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/linux/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_SIZE = 8192, LIMIT_MAX = 1 << 20 };

/* One hierarchy that may carry a quota. */
struct hierarchy {
    bool v2;
    bool found_group, found_mount;
    char group[PATH_MAX]; /* of this process, as /proc/self/cgroup has it */
    char mount[PATH_MAX]; /* where the hierarchy is mounted */
    char top[PATH_MAX];   /* which group the mount shows as its root */
};

static FILE *open_under(const char *root, const char *path)
{
    char full[2 * PATH_MAX];
    int length = snprintf(full, sizeof full, "%s%s", root, path);
    return length < 0 || (size_t)length >= sizeof full ? NULL : fopen(full, "re");
}

/* Copies a path, or nothing and returns false where it is too long. */
static bool copy_path(char *to, const char *from)
{
    size_t length = strlen(from);
    if (length >= PATH_MAX)
        return false;
    memcpy(to, from, length + 1);
    return true;
}

/* Whether `name` is one of a comma-separated list. */
static bool list_has(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* "0::/path" is version 2, "4:cpu,cpuacct:/path" version 1. */
static void read_groups(const char *root, struct hierarchy *v1, struct hierarchy *v2)
{
    char line[LINE_SIZE];
    FILE *file = open_under(root, "/proc/self/cgroup");
    if (file == NULL)
        return;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *controllers++ = '\0';
        *path++ = '\0';
        if (strcmp(line, "0") == 0 && *controllers == '\0')
            v2->found_group = copy_path(v2->group, path);
        else if (list_has(controllers, "cpu"))
            v1->found_group = copy_path(v1->group, path);
    }
    fclose(file);
}

/* mountinfo writes a space, tab, newline or backslash as \ooo. */
static void decode_octal(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
            from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* Cuts one space-separated field off; NULL at the end. */
static char *next_field(char **rest)
{
    char *field;
    do
        field = strsep(rest, " ");
    while (field != NULL && *field == '\0');
    return field;
}

/* "36 35 98:0 /top /mount options - type source superoptions", with optional fields before the
 * dash. */
static void read_mount_line(char *line, struct hierarchy *v1, struct hierarchy *v2)
{
    char *rest = line, *top = NULL, *mount = NULL, *field;
    for (int i = 0; (field = next_field(&rest)) != NULL && strcmp(field, "-") != 0; i++) {
        if (i == 3)
            top = field;
        else if (i == 4)
            mount = field;
    }
    char *type = next_field(&rest);
    next_field(&rest);
    char *options = next_field(&rest);
    if (mount == NULL || type == NULL || options == NULL)
        return;
    struct hierarchy *hierarchy;
    if (strcmp(type, "cgroup2") == 0)
        hierarchy = v2;
    else if (strcmp(type, "cgroup") == 0 && list_has(options, "cpu"))
        hierarchy = v1;
    else
        return;
    if (hierarchy->found_mount)
        return;
    decode_octal(top);
    decode_octal(mount);
    hierarchy->found_mount = copy_path(hierarchy->top, top) && copy_path(hierarchy->mount, mount);
}

static void read_mounts(const char *root, struct hierarchy *v1, struct hierarchy *v2)
{
    char line[LINE_SIZE];
    FILE *file = open_under(root, "/proc/self/mountinfo");
    if (file == NULL)
        return;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        read_mount_line(line, v1, v2);
    }
    fclose(file);
}

/* Reads the first two words of a file of the group `directory`; how many there were. */
static int read_words(const char *root, const char *directory, const char *name, char first[32],
                      char second[32])
{
    char path[2 * PATH_MAX + 32];
    int length = snprintf(path, sizeof path, "%s/%s", directory, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return 0;
    FILE *file = open_under(root, path);
    if (file == NULL)
        return 0;
    int words = fscanf(file, "%31s %31s", first, second);
    fclose(file);
    return words < 0 ? 0 : words;
}

/* quota / period rounded up; 0 where the two are no limit. */
static int limit_of(const char *quota_text, const char *period_text)
{
    char *quota_end, *period_end;
    long long quota = strtoll(quota_text, &quota_end, 10);
    long long period = strtoll(period_text, &period_end, 10);
    if (quota_end == quota_text || *quota_end != '\0' || period_end == period_text ||
        *period_end != '\0')
        return 0; /* "max" among others */
    if (quota <= 0 || period <= 0)
        return 0; /* version 1 writes -1 for none */
    long long limit = quota / period + (quota % period != 0);
    return limit > LIMIT_MAX ? LIMIT_MAX : (int)limit;
}

/* The limit that one group sets itself; 0: none. */
static int group_limit(const char *root, const char *directory, bool v2)
{
    char quota[32], period[32], unused[32];
    if (v2) {
        if (read_words(root, directory, "cpu.max", quota, period) != 2)
            return 0;
    } else if (read_words(root, directory, "cpu.cfs_quota_us", quota, unused) < 1 ||
               read_words(root, directory, "cpu.cfs_period_us", period, unused) < 1) {
        return 0;
    }
    return limit_of(quota, period);
}

static int smaller_limit(int a, int b)
{
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

/* The group's path below the mount. A container without a group namespace sees its full path in
 * /proc/self/cgroup, while its mount starts at `top`; a group outside the mount (or "/../x") cannot
 * be looked up, and then the mount's root is the nearest. */
static const char *path_below_mount(const struct hierarchy *hierarchy)
{
    size_t length = strlen(hierarchy->top);
    const char *group = hierarchy->group;
    if (group[0] != '/' || strncmp(group, "/..", 3) == 0)
        return "";
    if (length <= 1)
        return group;
    if (strncmp(group, hierarchy->top, length) == 0 &&
        (group[length] == '/' || group[length] == '\0'))
        return group + length;
    return "";
}

/* The smallest limit from the group up to the mount's root. */
static int hierarchy_limit(const char *root, const struct hierarchy *hierarchy)
{
    char directory[2 * PATH_MAX];
    int limit = 0;
    if (!hierarchy->found_group || !hierarchy->found_mount)
        return 0;
    size_t mount_length = strlen(hierarchy->mount);
    snprintf(directory, sizeof directory, "%s%s", hierarchy->mount, path_below_mount(hierarchy));
    for (;;) {
        limit = smaller_limit(limit, group_limit(root, directory, hierarchy->v2));
        if (strlen(directory) <= mount_length)
            return limit;
        *strrchr(directory + mount_length, '/') = '\0';
    }
}

int plait__prim_cgroup_cpu_limit(const char *root)
{
    int limit = 0;
    /* Two hierarchies are 24 KiB: too much for the stack of a small thread. */
    struct hierarchy *both = calloc(2, sizeof *both);
    if (both == NULL)
        return 0;
    struct hierarchy *v1 = &both[0], *v2 = &both[1];
    v2->v2 = true;
    read_groups(root, v1, v2);
    read_mounts(root, v1, v2);
    limit = smaller_limit(hierarchy_limit(root, v1), hierarchy_limit(root, v2));
    free(both);
    return limit;
}
