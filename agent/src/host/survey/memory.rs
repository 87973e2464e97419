//! Memory, NUMA nodes and pools of huge pages.

use std::path::Path;

use berth_domain::facts::{HugePages, Memory, NumaNode};

use super::{Roots, read};

pub(super) fn memory(roots: &Roots) -> Memory {
    let text = read::start(&roots.proc.join("meminfo"), 64 << 10).unwrap_or_default();
    let amount = |key| read::field(&text, key).and_then(read::kibibytes);
    Memory { total_bytes: amount("MemTotal:"), available_bytes: amount("MemAvailable:") }
}

pub(super) fn numa_nodes(roots: &Roots) -> Vec<NumaNode> {
    let nodes = roots.sys.join("devices/system/node");
    let mut found: Vec<NumaNode> = read::names(&nodes)
        .iter()
        .filter_map(|name| {
            let id = read::numbered(name, "node")?;
            let node = nodes.join(name);
            let text = read::start(&node.join("meminfo"), 64 << 10).unwrap_or_default();
            Some(NumaNode {
                id,
                cpus: read::text(&node.join("cpulist")).unwrap_or_default(),
                memory_bytes: read::field(&text, &format!("Node {id} MemTotal:")).and_then(read::kibibytes),
                huge_pages: huge_pages(&node.join("hugepages")),
            })
        })
        .collect();
    found.sort_unstable_by_key(|node| node.id);
    found
}

/// The pools below a directory of `hugepages-<size>kB` directories.
pub(super) fn huge_pages(pools: &Path) -> Vec<HugePages> {
    let mut found: Vec<HugePages> = read::names(pools)
        .iter()
        .filter_map(|name| {
            let kibibytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let pool = pools.join(name);
            Some(HugePages {
                page_bytes: kibibytes.checked_mul(1024)?,
                total: read::number(&pool.join("nr_hugepages"))?,
                free: read::number(&pool.join("free_hugepages")).unwrap_or(0),
            })
        })
        .collect();
    found.sort_unstable_by_key(|pool| pool.page_bytes);
    found
}
