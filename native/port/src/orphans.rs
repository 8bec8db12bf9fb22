//! Processes that have left the group of the child that began them. On Linux this program asks for
//! orphans, so that they become its own children when their parent ends: they are reaped, where in
//! many a container nobody would, and do not outlive the program.

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::process;
    use std::sync::Mutex;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use rustix::process::{
        Pid, Signal, WaitId, WaitIdOptions, kill_process, set_child_subreaper, waitid,
    };

    /// Looking through all processes takes milliseconds.
    const PAUSE: Duration = Duration::from_secs(1);

    /// How often is looked for orphans of orphans.
    const ROUNDS: usize = 20;
    const ROUND: Duration = Duration::from_millis(10);

    /// Has orphans come to this process.
    pub(crate) fn adopt() {
        if let Err(error) = set_child_subreaper(Pid::from_raw(1)) {
            tracing::warn!(%error, "orphans are left to others");
        }
    }

    /// Reaps those that have ended. Children are waited for elsewhere: they lead groups in the
    /// session of this process.
    pub(crate) fn reap() {
        static LAST: Mutex<Option<Instant>> = Mutex::new(None);
        let Ok(mut last) = LAST.try_lock() else {
            return;
        };
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        *last = Some(Instant::now());
        let session = stat("self").map(|stat| stat.session);
        for (pid, stat) in children() {
            let is_ours = stat.leads_group && Some(&stat.session) == session.as_ref();
            if stat.is_zombie && !is_ours {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                let _ = waitid(WaitId::Pid(pid), options);
            }
        }
    }

    /// Ends all, and those that come to this process by that. The children have ended before, and
    /// with them what the guard was for.
    pub(crate) fn kill() {
        for _ in 0..ROUNDS {
            let left = children().filter(|(_, stat)| !stat.is_zombie);
            let killed = left.map(|(pid, _)| kill_process(pid, Signal::KILL));
            if killed.count() == 0 {
                return;
            }
            sleep(ROUND);
        }
    }

    /// The processes whose parent this is.
    fn children() -> impl Iterator<Item = (Pid, Stat)> {
        let own = process::id().to_string();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(move |entry| {
            let name = entry.file_name();
            let pid = Pid::from_raw(name.to_str()?.parse().ok()?)?;
            let stat = stat(name.to_str()?)?;
            (stat.parent == own).then_some((pid, stat))
        })
    }

    struct Stat {
        is_zombie: bool,
        leads_group: bool,
        parent: String,
        session: String,
    }

    fn stat(process: &str) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name in between may hold anything.
        let (before, after) = text.rsplit_once(')')?;
        let pid = before.split_once(' ')?.0;
        let mut fields = after.split_ascii_whitespace();
        Some(Stat {
            is_zombie: fields.next()? == "Z",
            parent: fields.next()?.to_owned(),
            leads_group: fields.next()? == pid,
            session: fields.next()?.to_owned(),
        })
    }
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{adopt, kill, reap};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    pub(crate) fn adopt() {}
    pub(crate) fn reap() {}
    pub(crate) fn kill() {}
}

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{adopt, kill, reap};
