//! A way between two hosts with troubles of its own: everything that goes over it can be counted, cut, stopped, slowed down
//! or damaged.

#![allow(dead_code, reason = "every test target takes the part that it needs")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to a connection. Bytes are counted in the direction away from who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// After so many bytes both directions end.
    Cut(u64),
    /// After so many bytes nothing goes through any more, in either direction, and nobody is told.
    Silence(u64),
    /// The lowest bit of this byte is another one.
    Flip(u64),
    /// So many bytes go through in a tenth of a second, and no more.
    Slow(usize),
}

/// A proxy to one address.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    trouble: Mutex<Trouble>,
    /// Bytes that went away from who connects, in the connection that was made last.
    carried: AtomicU64,
    ended: AtomicBool,
}

impl Proxy {
    /// A proxy without trouble.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (trouble, carried) = (Mutex::new(Trouble::None), AtomicU64::new(0));
        let shared = Arc::new(Shared { target, trouble, carried, ended: AtomicBool::new(false) });
        let inside = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if inside.ended.load(Ordering::SeqCst) {
                    return;
                }
                inside.clone().carry(stream);
            }
        });
        Self { address, shared }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to the connections from now on.
    pub fn make(&self, trouble: Trouble) {
        *self.shared.trouble.lock().expect("whole") = trouble;
    }

    /// Bytes that the last connection carried away from who connects.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _wakes_it = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn carry(self: Arc<Self>, near: TcpStream) {
        let Ok(far) = TcpStream::connect(self.target) else { return };
        let trouble = *self.trouble.lock().expect("whole");
        self.carried.store(0, Ordering::SeqCst);
        let stopped = Arc::new(AtomicBool::new(false));
        let (near_again, far_again) = (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
        let (shared, stops) = (self.clone(), stopped.clone());
        thread::spawn(move || shared.away(near, far, trouble, &stops));
        thread::spawn(move || back(far_again, near_again, &stopped));
    }

    fn away(&self, mut near: TcpStream, mut far: TcpStream, trouble: Trouble, stopped: &AtomicBool) {
        let mut buffer = [0; 8192];
        let most = if let Trouble::Slow(bytes) = trouble { bytes.min(buffer.len()) } else { buffer.len() };
        while let Ok(length @ 1..) = near.read(&mut buffer[..most]) {
            let before = self.carried.fetch_add(length as u64, Ordering::SeqCst);
            let after = before + length as u64;
            let mut through = length;
            match trouble {
                Trouble::Cut(at) | Trouble::Silence(at) if after > at => through = at.saturating_sub(before) as usize,
                Trouble::Flip(at) if (before..after).contains(&at) => buffer[(at - before) as usize] ^= 1,
                Trouble::Slow(_) => thread::sleep(Duration::from_millis(100)),
                _ => {}
            }
            if far.write_all(&buffer[..through]).is_err() {
                break;
            }
            if through < length {
                match trouble {
                    Trouble::Silence(_) => {
                        stopped.store(true, Ordering::SeqCst);
                        // Both sockets stay open until the one that connects gives up.
                        while matches!(near.read(&mut buffer), Ok(1..)) {}
                        thread::sleep(Duration::from_secs(20));
                    }
                    _ => {
                        let _ = near.shutdown(Shutdown::Both);
                        let _ = far.shutdown(Shutdown::Both);
                    }
                }
                return;
            }
        }
        let _ = far.shutdown(Shutdown::Write);
    }
}

fn back(mut far: TcpStream, mut near: TcpStream, stopped: &AtomicBool) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = far.read(&mut buffer) {
        if stopped.load(Ordering::SeqCst) {
            continue;
        }
        if near.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    if !stopped.load(Ordering::SeqCst) {
        let _ = near.shutdown(Shutdown::Write);
    }
}
