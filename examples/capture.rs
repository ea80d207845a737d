//! A capture replayed: each frame of a pcap file goes through a frontend to its backend, which sends it
//! back, and what has come back is written to another file.
//!
//! ```sh
//! cargo run --example capture                      # makes a capture of its own first
//! cargo run --example capture -- in.pcap out.pcap
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use xen_netfront::packet::device::WriteError;
use xen_netfront::packet::frames::{FrameDevice, Frames};
use xen_sim::Next;
use xen_sim::mirror::Mirror;

fn read(path: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut reader = PcapReader::new(BufReader::new(File::open(path)?))?;
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet?.data.into_owned());
    }
    Ok(frames)
}

fn write(path: &Path, frames: &[Vec<u8>]) -> Result<(), Box<dyn Error>> {
    // An existing file is never overwritten.
    let mut writer = PcapWriter::new(BufWriter::new(File::create_new(path)?))?;
    for (nth, frame) in (0..).zip(frames) {
        let len = u32::try_from(frame.len())?;
        writer.write_packet(&PcapPacket::new(Duration::from_micros(nth), len, frame))?;
    }
    Ok(())
}

/// Where to read and to write: a folder of our own, with a capture in it, if nobody says.
fn paths() -> Result<(PathBuf, PathBuf, Option<PathBuf>), Box<dyn Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match &args[..] {
        [from, to] => Ok((from.clone(), to.clone(), None)),
        [] => {
            let folder = std::env::temp_dir().join(format!("capture-{}", std::process::id()));
            std::fs::create_dir(&folder)?;
            let from = folder.join("in.pcap");
            write(&from, &(0..300).map(|nth| vec![nth as u8; 60 + nth * 4]).collect::<Vec<_>>())?;
            Ok((from, folder.join("out.pcap"), Some(folder)))
        }
        _ => {
            Err("either no file or two: what to replay, and where to write what comes back".into())
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (from, to, ours) = paths()?;
    let frames = read(&from)?;
    let host = Mirror::new(3)?;
    let mut card = Frames::new(host.open()?);
    let mut left = frames.iter().peekable();
    let (mut sent, mut refused, mut back) = (Vec::new(), 0, Vec::new());
    host.run(|| {
        card.service();
        while let Some(frame) = left.peek() {
            match card.send_frame(frame) {
                Ok(()) => sent.push(frame.to_vec()),
                Err(WriteError::Full | WriteError::NoMemory) => break,
                // Longer than the MTU, or no frame at all.
                Err(_) => refused += 1,
            }
            left.next();
        }
        card.flush();
        let mut buffer = vec![0; card.max_frame()];
        while let Ok(Some(len)) = card.recv_frame(&mut buffer) {
            back.push(buffer[..len].to_vec());
        }
        if back.len() == sent.len() && left.peek().is_none() { Next::Done } else { Next::Now }
    })?;
    write(&to, &back)?;
    println!("{}: {} frames, {refused} of them refused", from.display(), frames.len());
    println!("{}: {} frames", to.display(), back.len());
    assert!(read(&to)? == sent && sent.len() + refused == frames.len());
    if let Some(folder) = ours {
        assert_eq!((sent.len(), refused), (300, 0));
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}
