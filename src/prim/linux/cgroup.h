/* prim/linux/cgroup: the processor quota that control groups put on this process.
 *
 * Internal to prim/linux, and its test.
 * Design: docs/design/prim.md
 */
#ifndef PLAIT_PRIM_LINUX_CGROUP_H
#define PLAIT_PRIM_LINUX_CGROUP_H

/* Processors that the quotas along the whole path of this process's groups allow (v2 `cpu.max`, v1
 * `cpu.cfs_quota_us`), rounded up; 0 when there is none. `root` stands before every path that is
 * read: "" for the system, a folder of its own for a test. Reads files; any thread. */
int plait__prim_cgroup_cpu_limit(const char *root);

#endif
