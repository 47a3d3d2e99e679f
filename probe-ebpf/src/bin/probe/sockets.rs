//! From a socket to its link: looked up in the socket's own storage, created when a watched process
//! speaks on a quorum port.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_sk_storage_get};
use core::ffi::c_void;
use probe_ebpf::abi::{Process, SocketTag, TransitionRecord, change, counter, kind, side};
use probe_ebpf::link::{Link, Rings};
use probe_ebpf::ports::PAIR_OFFSET;
use probe_ebpf::zab::Direction;

use crate::emit::{count, emit};
use crate::kernel::{Sock, Task, bit, offset, read_kernel};
use crate::{atomic, maps};

const BPF_SK_STORAGE_GET_F_CREATE: u64 = 1;
const AF_INET: u16 = 2;
/// A tag whose link is being set up by another CPU.
const CLAIMED: u64 = u64::MAX;

/// A link and its place in the maps.
#[derive(Clone, Copy)]
pub struct LinkRef {
    /// Index in the maps.
    pub slot: u32,
    /// The link.
    pub link: *mut Link,
}

#[inline(always)]
fn tag(sk: Sock, flags: u64) -> *mut SocketTag {
    // SAFETY: the map is a static of this object and `sk` is trusted by the verifier; NULL is a miss.
    unsafe {
        bpf_sk_storage_get(
            (&raw const maps::SOCKETS).cast_mut().cast(),
            sk.0.cast_mut(),
            core::ptr::null_mut(),
            flags,
        )
    }
    .cast()
}

/// The link of a socket, if it has one.
#[inline(always)]
pub fn find(sk: Sock) -> Option<LinkRef> {
    let tag = tag(sk, 0);
    if tag.is_null() {
        return None;
    }
    // SAFETY: a non-null storage value lives as long as the socket, which the hook's caller holds.
    let plus_one = unsafe { (&raw const (*tag).slot_plus_one).read_volatile() };
    if plus_one == 0 || plus_one == CLAIMED {
        return None;
    }
    let slot = (plus_one - 1) as u32;
    let link = maps::LINKS.get_ptr_mut(slot)?;
    // SAFETY: as above, and a map value lives as long as the map.
    let same = unsafe { (*link).identity.generation == (*tag).generation };
    if same { Some(LinkRef { slot, link }) } else { None }
}

/// Is it sure that a socket has no link? What every socket of the host pays at a hook is this look: two
/// loads, no call and no stack.
#[inline(always)]
pub fn is_passed_over(sk: Sock) -> bool {
    maps::port_filter().turns_away(sk.load(PAIR_OFFSET))
}

/// The link of a socket, created when it has none and is on a quorum port. `task` is its user, when that is who runs now.
#[inline(always)]
pub fn link(sk: Sock, task: Option<Task>) -> Option<LinkRef> {
    // First what is asked for nearly always: a look into the socket's storage, and not into the ports.
    if let Some(at) = find(sk) {
        adopt(at, task);
        return Some(at);
    }
    meet(sk, task)
}

/// Looks at the ports of a socket without a link. Out of line: seldom on the way of packets.
#[inline(never)]
fn meet(sk: Sock, task: Option<Task>) -> Option<LinkRef> {
    let local: u16 = sk.load(offset!(skc_num));
    let remote = u16::from_be(sk.load(offset!(skc_dport)));
    if !bit(&maps::PORTS, local as u32) && !bit(&maps::PORTS, remote as u32) {
        return None;
    }
    sk.tcp()?;
    create(sk, task, local, remote)
}

/// A link that an arrival created learns whose it is with the first call on its socket.
#[inline(always)]
fn adopt(at: LinkRef, task: Option<Task>) {
    let Some(task) = task else { return };
    // SAFETY: a map value lives as long as the map; every user of one socket writes the same.
    let link = unsafe { &mut *at.link };
    let id = &mut link.identity;
    if id.tgid != task.tgid {
        // SAFETY: user space removes entries of dead processes only.
        let process = unsafe { maps::PROCESSES.get(task.tgid) };
        id.tgid = task.tgid;
        id.side = side_of(process, id.local_port, id.remote_port);
        link.drained = process.map_or(0, |p| p.drained);
        // The leader sends a PING each half tick.
        link.inference.tick_ns = process.map_or(0, |p| p.tick_ms) as u64 * 500_000;
        transition(at, change::OPENED, id.opened_at);
    }
}

/// A port may be somebody's quorum port and yet be our ephemeral one: the process's own port decides.
#[inline(always)]
fn side_of(process: Option<&Process>, local: u16, remote: u16) -> u8 {
    let own = process.map_or(0, |p| p.own_quorum_port);
    let ours = if own != 0 { own == local as u32 } else { bit(&maps::PORTS, local as u32) };
    if ours || !bit(&maps::PORTS, remote as u32) { side::LEADER } else { side::LEARNER }
}

#[inline(always)]
fn create(sk: Sock, task: Option<Task>, local: u16, remote: u16) -> Option<LinkRef> {
    let tag = tag(sk, BPF_SK_STORAGE_GET_F_CREATE);
    if tag.is_null() {
        count(counter::LINKS_REFUSED);
        return None;
    }
    // SAFETY: as in `find`; the two fields of the tag are only ever touched as here.
    let (slot_cell, refused) = unsafe { (&raw mut (*tag).slot_plus_one, &mut (*tag).refused) };
    // SAFETY: a storage value is aligned and lives as long as the socket.
    if !unsafe { atomic::exchange(slot_cell, 0, CLAIMED) } {
        return None;
    }
    let slot = match maps::FREE_SLOTS.pop() {
        Ok(Some(slot)) => slot,
        _ => {
            if *refused == 0 {
                *refused = 1;
                count(counter::LINKS_REFUSED);
            }
            // SAFETY: as above.
            unsafe { atomic::store(slot_cell, 0) };
            return None;
        }
    };
    let link = maps::LINKS.get_ptr_mut(slot)?;
    // SAFETY: the slot was free, so this CPU alone has it until the tag is stored.
    unsafe {
        open(&mut *link, sk, local, remote);
        if let Some(rings) = rings(slot) {
            (*rings).path.reset();
        }
        (*tag).generation = (*link).identity.generation;
    }
    // SAFETY: as above.
    unsafe { atomic::store(slot_cell, slot as u64 + 1) };
    let at = LinkRef { slot, link };
    adopt(at, task);
    Some(at)
}

/// Fills a zeroed link.
#[inline(always)]
fn open(link: &mut Link, sk: Sock, local: u16, remote: u16) {
    let id = &mut link.identity;
    id.generation = id.generation.wrapping_add(1) | 1;
    // SAFETY: helpers without preconditions beyond a trusted socket.
    unsafe {
        id.cookie = bpf_get_socket_cookie(sk.0.cast_mut());
        id.opened_at = bpf_ktime_get_ns();
    }
    let (net, inum) = (sk.load::<*const c_void>(offset!(skc_net)), offset!(net_inum));
    id.net_ns = read_kernel(net.wrapping_byte_add(inum), 0);
    if sk.load::<u16>(offset!(skc_family)) == AF_INET {
        id.local_addr = mapped(sk.bytes(offset!(skc_rcv_saddr)));
        id.remote_addr = mapped(sk.bytes(offset!(skc_daddr)));
    } else {
        id.local_addr = sk.bytes(offset!(skc_v6_rcv_saddr));
        id.remote_addr = sk.bytes(offset!(skc_v6_daddr));
    }
    id.local_port = local;
    id.remote_port = remote;
    link.down.set_direction(Direction::Down);
    link.up.set_direction(Direction::Up);
}

#[inline(always)]
fn mapped(v4: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// The rings of a slot.
#[inline(always)]
pub fn rings(slot: u32) -> Option<*mut Rings> {
    maps::RINGS.get_ptr_mut(slot)
}

/// Emits a change of a link.
#[inline(always)]
pub fn transition(at: LinkRef, change: u32, now: u64) {
    // SAFETY: a map value lives as long as the map.
    let generation = unsafe { (*at.link).identity.generation };
    let record =
        TransitionRecord { kind: kind::TRANSITION, slot: at.slot, generation, change, at: now, number: 0 };
    emit(kind::TRANSITION, &record, true);
}
