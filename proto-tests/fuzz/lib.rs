//! The driver of the fuzz targets: one function for all, whose inputs come from seeds.
//!
//! ```text
//! run seed ─▶ seed of each execution ─▶ FuzzInput ─▶ the target ─▶ executions, the slowest
//!                 │                                     └─ panics ─▶ the seed that repeats it
//!                 └─ FUZZ_CASE: this one alone
//! ```
//!
//! A target is a unit test beside the code that it is about, named `fuzz_…`, which calls [`fuzz`].
//! With the other tests it runs for a second, with `scripts/fuzz` for minutes and on all cores.
//! No cargo-fuzz: that needs a nightly compiler. What guides the inputs instead is that most of
//! them are valid ones with a little damage.
//!
//! Variables:
//!
//! ```text
//! FUZZ_SEED=n       the seed of the run; without it, another one each time
//! FUZZ_CASE=n       one execution alone, by the seed that its failure printed
//! FUZZ_SECONDS=n    how long each target runs; 1 unless said
//! FUZZ_THREADS=n    on how many threads; 1 unless said
//! ```

mod input;

use std::env;
use std::io::{Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use input::FuzzInput;

/// How long a single execution may take until its seed is printed: it may never end.
const HANG: Duration = Duration::from_secs(20);
/// Executions of each thread, however slow the machine is.
const EXECUTIONS_MIN: u64 = 20;

/// Executes a target with one input after the other for as long as `FUZZ_SECONDS` says.
///
/// # Panics
/// If the target does, after the seed is printed that repeats it.
pub fn fuzz(target: &str, execute: impl Fn(&mut FuzzInput) + Sync) {
    if let Some(seed) = variable("FUZZ_CASE") {
        return execute(&mut FuzzInput::new(seed));
    }
    let seed = variable("FUZZ_SEED").unwrap_or_else(random_seed);
    let duration = Duration::from_secs(variable("FUZZ_SECONDS").unwrap_or(1));
    let threads: u64 = variable("FUZZ_THREADS").unwrap_or(1);
    print(&format!("fuzz {target}: FUZZ_SEED={seed}"));
    let slots: Vec<Slot> = (0..threads).map(|_| Slot::default()).collect();
    let begin = Instant::now();
    let (ended, watched) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let slots = &slots;
        scope.spawn(move || watch(target, slots, &watched));
        let run = |(thread, slot): (u64, _)| {
            let execute = &execute;
            move || {
                run_thread(
                    target,
                    (seed, thread, threads),
                    begin + duration,
                    slot,
                    execute,
                )
            }
        };
        let running: Vec<_> = (0..).zip(slots).map(|at| scope.spawn(run(at))).collect();
        let ends: Vec<_> = running.into_iter().map(|thread| thread.join()).collect();
        drop(ended);
        if let Some(panic) = ends.into_iter().find_map(Result::err) {
            resume_unwind(panic);
        }
    });
    let executions: u64 = slots
        .iter()
        .map(|slot| slot.executions.load(Ordering::Relaxed))
        .sum();
    let slowest = slots
        .iter()
        .map(|slot| slot.slowest_micros.load(Ordering::Relaxed))
        .max();
    print(&format!(
        "fuzz {target}: {executions} executions in {:.1} s, the slowest {:.1} ms",
        begin.elapsed().as_secs_f64(),
        slowest.unwrap_or(0) as f64 / 1000.0
    ));
}

/// Gives what `work` gives, which may allocate no more than that many bytes at once.
///
/// # Panics
/// If it allocates more.
pub fn within<T>(bytes_max: usize, what: &str, work: impl FnOnce() -> T) -> T {
    let mut result = None;
    let allocated = allocation_counter::measure(|| result = Some(work()));
    let bytes = allocated.bytes_max;
    assert!(
        bytes <= bytes_max as u64,
        "{what}: {bytes} bytes are allocated, over {bytes_max}"
    );
    result.expect("it has run")
}

/// What one thread does, for the others to see.
#[derive(Default)]
struct Slot {
    /// Of the execution under way.
    seed: AtomicU64,
    executions: AtomicU64,
    slowest_micros: AtomicU64,
}

fn run_thread(
    target: &str,
    (seed, thread, threads): (u64, u64, u64),
    end: Instant,
    slot: &Slot,
    execute: &impl Fn(&mut FuzzInput),
) {
    let mut executions = 0;
    let mut now = Instant::now();
    while now < end || executions < EXECUTIONS_MIN {
        let case = input::mix(seed.wrapping_add(thread + executions * threads));
        slot.seed.store(case, Ordering::Relaxed);
        let executed = catch_unwind(AssertUnwindSafe(|| execute(&mut FuzzInput::new(case))));
        if let Err(panic) = executed {
            print(&format!(
                "fuzz {target}: again by FUZZ_CASE={case} (FUZZ_SEED={seed})"
            ));
            resume_unwind(panic);
        }
        executions += 1;
        let before = std::mem::replace(&mut now, Instant::now());
        let micros = (now - before).as_micros() as u64;
        slot.slowest_micros.fetch_max(micros, Ordering::Relaxed);
        slot.executions.store(executions, Ordering::Relaxed);
    }
}

/// Prints the seed of an execution that does not end, until the run ends.
fn watch(target: &str, slots: &[Slot], ended: &mpsc::Receiver<()>) {
    let mut before = Vec::new();
    while ended.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
        let seeds: Vec<_> = slots
            .iter()
            .map(|slot| slot.seed.load(Ordering::Relaxed))
            .collect();
        for (seed, _) in seeds
            .iter()
            .zip(&before)
            .filter(|(now, before)| now == before)
        {
            print(&format!(
                "fuzz {target}: FUZZ_CASE={seed} has not ended for {HANG:?}"
            ));
        }
        before = seeds;
    }
}

/// Past the capture of the test harness: who reads a log wants to see it.
fn print(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn random_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    input::mix(since.map_or(0, |since| since.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_repeated_by_its_seed() {
        let sum = |input: &mut FuzzInput| (0..10).map(|_| input.below(1000)).sum::<usize>();
        let failing = std::sync::Mutex::new(None);
        let failed = catch_unwind(AssertUnwindSafe(|| {
            fuzz("driver", |input| {
                let seed = input.seed();
                let sum = sum(input);
                if sum % 7 == 0 {
                    *failing.lock().expect("no panic holds it") = Some((seed, sum));
                    panic!("as it should");
                }
            });
        }));
        assert!(failed.is_err());
        let (seed, found) = failing
            .lock()
            .expect("no panic holds it")
            .expect("it failed");
        assert_eq!(sum(&mut FuzzInput::new(seed)), found);
    }

    #[test]
    fn what_allocates_too_much_is_found_out() {
        within(2000, "little", || vec![0_u8; 1000]);
        let much = catch_unwind(|| within(2000, "much", || Vec::<u8>::with_capacity(3000)));
        assert!(much.is_err());
    }
}
