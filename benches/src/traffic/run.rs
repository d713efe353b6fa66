//! A run: both ports driven by one thread, both directions loaded, every frame written and every frame looked at.
//!
//! **Saturated**: as many frames are on their way as the rings hold ([`Load::Window`]), so the slower one of client
//! and switch sets the pace and nothing is lost. **Paced** ([`Load::Paced`]): frames are due at fixed times whatever
//! happened to those before, and latency counts from the time at which a frame was due.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pmd::clock::cycles;
use vhost::driver::frontend::End;
use vhost::driver::queue::{DeviceFault, Frame, Queue};

use super::flows::{Flows, Seen};
use super::outer::Outer;

/// When frames are sent.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// So many frames of each direction are on their way.
    Window(u64),
    /// So many frames a second and direction.
    Paced(f64),
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// When frames are sent.
    pub load: Load,
    /// Most frames that are sent or received at a time.
    pub burst: u16,
    /// Bytes of a frame, check sequence included.
    pub size: usize,
    /// What is around the frames at the second port.
    pub outer: Option<Outer>,
    /// How long it runs before it is measured; long enough at least for every flow to have had its turn.
    pub warm_up: Duration,
    /// How long it is measured.
    pub time: Duration,
}

/// What was seen. Times in cycles of the processor's clock.
pub struct Outcome {
    /// How long it was measured, and in cycles.
    pub seconds: f64,
    /// The same in cycles of the clock.
    pub cycles: u64,
    /// Frames sent and received, both directions together.
    pub sent: u64,
    /// The same.
    pub received: u64,
    /// Bytes received, without virtio-net headers and those of a tunnel.
    pub bytes: u64,
    /// Frames of the whole run, warm-up included, that did not arrive.
    pub lost: u64,
    /// Frames that arrived behind a later one.
    pub reordered: u64,
    /// Frames that were not ours.
    pub foreign: u64,
    /// How often all that was on its way was given up.
    pub stalls: u64,
    /// Cycles of turns in which a frame was sent or received.
    pub busy: u64,
    /// From due to received, cycles.
    pub latency: Histogram<u64>,
}

/// Nothing came for so long: what is on its way is lost.
const STALL: Duration = Duration::from_millis(100);
/// After the end, frames on their way are waited for.
const DRAIN: Duration = Duration::from_millis(200);
/// Under saturation one latency of so many is noted.
const SAMPLE: u64 = 16;
/// A latency that is told exactly, cycles; longer ones count as this.
const LONGEST: u64 = 1 << 34;

/// Bytes of a buffer that are fetched before they are written.
const FETCHED: usize = 2048;

/// One direction: out of one port, into the other one.
struct Direction<const WORDS: usize> {
    flows: Flows<WORDS>,
    /// What is around a frame as it is sent, and as it arrives.
    sent_in: Option<Outer>,
    comes_in: Option<Outer>,
    /// Frames sent, and the number behind the highest one that arrived.
    sent: u64,
    next: u64,
    /// Those before this one are not waited for any more; they may arrive all the same, and in order.
    given_up: u64,
    received: u64,
    /// When something came last, and when the next frame is due.
    last: u64,
    due: f64,
}

impl<const WORDS: usize> Direction<WORDS> {
    /// Frames that are waited for.
    #[inline]
    fn on_its_way(&self) -> u64 {
        self.sent.saturating_sub(self.next.max(self.given_up))
    }

    /// Bytes of a frame as it is sent and as it arrives, of which `size` are those of a frame without a tunnel.
    fn bytes(&self, size: usize) -> [usize; 2] {
        [&self.sent_in, &self.comes_in].map(|outer| size + outer.as_ref().map_or(0, Outer::bytes))
    }

    /// Sends a frame.
    #[inline]
    fn send(&mut self, queue: &mut Queue, due: u64, rest: &[u8]) -> bool {
        let (pair, flow) = self.flows.upcoming();
        let words = self.flows.next(self.sent, due);
        match (&self.sent_in, words.first_chunk()) {
            (Some(outer), Some(inner)) => outer.send(queue, inner, pair, flow),
            _ => queue.send_words(words, rest),
        }
    }

    /// What a frame says that arrived.
    #[inline]
    fn read(&self, frame: &Frame<'_>) -> Option<Seen> {
        match &self.comes_in {
            Some(outer) => self.flows.read(&outer.inner(&frame.head_words())),
            None => self.flows.read(&frame.head_words()),
        }
    }

    /// Notes that a frame has arrived; whether a later one was there before it.
    #[inline]
    fn is_overtaken(&mut self, number: u64) -> bool {
        self.received += 1;
        let overtaken = number < self.next;
        self.next = self.next.max(number + 1);
        overtaken
    }
}

/// What counts while it is measured.
struct Count {
    bytes: u64,
    reordered: u64,
    foreign: u64,
    stalls: u64,
    latency: Histogram<u64>,
}

/// Runs `plan` with frames of `flows`, first those out of the first end.
///
/// # Errors
/// A device broke the rules, or the histogram could not be made.
pub fn run<const WORDS: usize>(
    ends: [&mut End; 2],
    flows: [Flows<WORDS>; 2],
    plan: &Plan,
) -> io::Result<Outcome> {
    let mut run = Run::new(flows, plan)?;
    let queues = ends.map(|end| end.pair(0).ok_or_else(|| io::Error::other("an end without queues")));
    let [a, b] = queues;
    let ([a_receive, a_transmit], [b_receive, b_transmit]) = (a?, b?);
    run.go([(a_transmit, b_receive), (b_transmit, a_receive)]).map_err(io::Error::other)
}

struct Run<const WORDS: usize> {
    directions: [Direction<WORDS>; 2],
    count: Count,
    plan: Plan,
    rest: Vec<u8>,
    hertz: f64,
    interval: f64,
}

impl<const WORDS: usize> Run<WORDS> {
    fn new(flows: [Flows<WORDS>; 2], plan: &Plan) -> io::Result<Run<WORDS>> {
        let hertz = hertz();
        let now = cycles() as f64;
        let interval = if let Load::Paced(rate) = plan.load { hertz / rate } else { 0.0 };
        let [a, b] = flows;
        let direction = |flows, [sent_in, comes_in]: [Option<Outer>; 2], shift| Direction {
            flows,
            sent_in,
            comes_in,
            sent: 0,
            next: 0,
            given_up: 0,
            received: 0,
            last: now as u64,
            due: now + shift * interval,
        };
        Ok(Run {
            directions: [
                direction(a, [None, plan.outer.clone()], 0.0),
                direction(b, [plan.outer.clone(), None], 0.5),
            ],
            count: Count {
                bytes: 0,
                reordered: 0,
                foreign: 0,
                stalls: 0,
                latency: Histogram::new_with_max(LONGEST, 3).map_err(io::Error::other)?,
            },
            plan: plan.clone(),
            rest: (0..(plan.size + 8).saturating_sub(Flows::<WORDS>::BYTES)).map(|i| i as u8).collect(),
            hertz,
            interval,
        })
    }

    fn cycles_of(&self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.hertz) as u64
    }

    /// The whole run.
    fn go(&mut self, mut wires: [(&mut Queue, &mut Queue); 2]) -> Result<Outcome, DeviceFault> {
        let begun = cycles();
        let warm = begun + self.cycles_of(self.plan.warm_up);
        self.turns(&mut wires, |run, now| {
            now < warm || run.directions.iter().any(|way| way.sent < way.flows.round() as u64)
        })?;
        // For those who read the switch's counters meanwhile.
        eprintln!("measuring");
        self.count.latency.reset();
        let before = self.totals();
        (self.count.bytes, self.count.reordered, self.count.stalls, self.count.foreign) = (0, 0, 0, 0);
        let (start, clock) = (Instant::now(), cycles());
        let end = clock + self.cycles_of(self.plan.time);
        let busy = self.turns(&mut wires, |_, now| now < end)?;
        let (seconds, cycles) = (start.elapsed().as_secs_f64(), cycles() - clock);
        let after = self.totals();
        self.drain(&mut wires)?;
        let (sent, received) = self.totals();
        Ok(Outcome {
            seconds,
            cycles,
            sent: after.0 - before.0,
            received: after.1 - before.1,
            bytes: self.count.bytes,
            lost: sent.saturating_sub(received),
            reordered: self.count.reordered,
            foreign: self.count.foreign,
            stalls: self.count.stalls,
            busy,
            latency: self.count.latency.clone(),
        })
    }

    fn totals(&self) -> (u64, u64) {
        let [a, b] = &self.directions;
        (a.sent + b.sent, a.received + b.received)
    }

    /// Turn after turn as long as it is to go on; the cycles of those in which there was something to do.
    ///
    /// A turn first asks for all the lines that it will touch, of both directions, and then touches them: what costs
    /// is that they come from the switch's core, one after the other or all at once.
    fn turns(
        &mut self,
        wires: &mut [(&mut Queue, &mut Queue); 2],
        on: impl Fn(&Self, u64) -> bool,
    ) -> Result<u64, DeviceFault> {
        let (mut busy, mut now) = (0, cycles());
        while on(self, now) {
            let burst = self.plan.burst;
            for (transmit, receive) in wires.iter() {
                transmit.fetch();
                receive.fetch();
            }
            let mut waiting = [0; 2];
            for (i, (transmit, receive)) in wires.iter_mut().enumerate() {
                let [_, bytes] = self.directions[i].bytes(Flows::<WORDS>::BYTES);
                waiting[i] = receive.waiting(burst, bytes);
                transmit.waiting(0, 0);
            }
            let mut frames = [0; 2];
            for (i, (transmit, _)) in wires.iter_mut().enumerate() {
                frames[i] = self.allowed(i, transmit.reclaim()?, now);
                let [bytes, _] = self.directions[i].bytes(self.plan.size + 8);
                transmit.prefetch(frames[i], bytes.min(FETCHED));
            }
            for (i, (transmit, receive)) in wires.iter_mut().enumerate() {
                self.receive(i, receive, waiting[i])?;
                self.send(i, transmit, frames[i], now);
            }
            for (transmit, receive) in wires.iter_mut() {
                transmit.show();
                receive.show();
            }
            for (transmit, receive) in wires.iter_mut() {
                transmit.kick();
                receive.kick();
            }
            let then = std::mem::replace(&mut now, cycles());
            busy += if waiting != [0; 2] || frames != [0; 2] { now - then } else { 0 };
        }
        Ok(busy)
    }

    /// How many frames of a direction may be sent now, of `room` that the ring has room for.
    #[inline]
    fn allowed(&self, way: usize, room: u16, now: u64) -> u16 {
        let (way, most) = (&self.directions[way], room.min(self.plan.burst));
        match self.plan.load {
            Load::Window(window) => {
                let free = window.saturating_sub(way.on_its_way());
                // Not one by one when the window is full.
                if free < u64::from(self.plan.burst) && free < window {
                    0
                } else {
                    free.min(most.into()) as u16
                }
            }
            Load::Paced(_) => {
                let due = ((now as f64 - way.due) / self.interval).floor() + 1.0;
                due.clamp(0.0, most.into()) as u16
            }
        }
    }

    #[inline]
    fn send(&mut self, way: usize, queue: &mut Queue, frames: u16, now: u64) {
        let way = &mut self.directions[way];
        for _ in 0..frames {
            let mut due = now;
            if let Load::Paced(_) = self.plan.load {
                due = way.due as u64;
                way.due += self.interval;
            }
            if !way.send(queue, due, &self.rest) {
                break;
            }
            way.sent += 1;
        }
    }

    /// Receives what has come of a direction: the frames in `waiting` buffers.
    #[inline]
    fn receive(&mut self, way: usize, queue: &mut Queue, waiting: u16) -> Result<(), DeviceFault> {
        let (count, sampled) = (&mut self.count, matches!(self.plan.load, Load::Window(_)));
        let way = &mut self.directions[way];
        let (now, [_, bytes]) = (cycles(), way.bytes(self.plan.size + 8));
        let (bytes, inside) = (bytes as u64, self.plan.size as u64 - 4);
        if waiting == 0 {
            if now.saturating_sub(way.last) > (STALL.as_secs_f64() * self.hertz) as u64 {
                count.stalls += u64::from(way.on_its_way() > 0);
                (way.given_up, way.last) = (way.sent, now);
            }
            return Ok(());
        }
        for _ in 0..waiting {
            let Some(frame) = queue.receive()? else { break };
            let seen = way.read(&frame).filter(|_| frame.bytes() == bytes);
            let Some(Seen { number, due }) = seen else {
                count.foreign += 1;
                continue;
            };
            count.bytes += inside;
            count.reordered += u64::from(way.is_overtaken(number));
            if !sampled || number % SAMPLE == 0 {
                count.latency.saturating_record(now.saturating_sub(due));
            }
        }
        way.last = now;
        Ok(())
    }

    /// Receives what is still on its way.
    fn drain(&mut self, wires: &mut [(&mut Queue, &mut Queue); 2]) -> Result<(), DeviceFault> {
        let end = cycles() + self.cycles_of(DRAIN);
        while cycles() < end && self.totals().0 > self.totals().1 {
            for (i, (_, receive)) in wires.iter_mut().enumerate() {
                let waiting = receive.waiting(self.plan.burst, 0);
                self.receive(i, receive, waiting)?;
                receive.publish();
            }
        }
        Ok(())
    }
}

/// Cycles of the processor's clock in a second.
fn hertz() -> f64 {
    let (start, clock) = (Instant::now(), cycles());
    while start.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    (cycles() - clock) as f64 / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::flows::{Side, UDP_WORDS};
    use super::*;

    #[test]
    fn frames_that_arrive_after_they_were_given_up_are_in_order() {
        let flows = Flows::<UDP_WORDS>::new(Side::A, 1, 1, 64);
        let mut way = Direction {
            flows,
            sent_in: None,
            comes_in: None,
            sent: 10,
            next: 0,
            given_up: 0,
            received: 0,
            last: 0,
            due: 0.0,
        };
        assert!(!way.is_overtaken(0) && way.on_its_way() == 9);
        way.given_up = 10;
        assert!(!way.is_overtaken(1) && way.on_its_way() == 0);
        assert!(!way.is_overtaken(4) && way.is_overtaken(3));
        way.sent = 12;
        assert!(!way.is_overtaken(5) && way.on_its_way() == 2);
        assert!(!way.is_overtaken(10) && way.on_its_way() == 1 && way.received == 6);
    }
}
