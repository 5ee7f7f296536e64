use super::*;
use proptest::prelude::*;

const PACKED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn xerial(blocks: &[&[u8]]) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in blocks {
        let packed = snap::raw::Encoder::new().compress_vec(block).unwrap();
        out.extend_from_slice(&(packed.len() as i32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

fn is_corrupt(result: Result<Vec<u8>, CodecError>) -> bool {
    matches!(result, Err(CodecError::Corrupt { .. }))
}

#[test]
fn ids_and_names_are_kafkas() {
    let told: Vec<(u8, &str)> = Codec::ALL.map(|codec| (codec.id(), codec.name())).into();
    assert_eq!(
        told,
        [
            (0, "none"),
            (1, "gzip"),
            (2, "snappy"),
            (3, "lz4"),
            (4, "zstd")
        ]
    );
    for codec in Codec::ALL {
        assert_eq!(Codec::from_id(codec.id()), Some(codec));
    }
    assert_eq!((5..=255).find_map(Codec::from_id), None);
}

#[test]
fn every_codec_gives_back_what_it_took() {
    let long: Vec<u8> = (0..300_000u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    for codec in Codec::ALL {
        for bytes in [&b""[..], b"x", b"klamm klamm klamm", &long] {
            let packed = compress(codec, bytes);
            assert_eq!(
                decompress(codec, &packed, bytes.len()).as_deref(),
                Ok(bytes),
                "{codec}"
            );
        }
    }
}

#[test]
fn the_limit_is_the_last_length_allowed() {
    for codec in Codec::ALL {
        let packed = compress(codec, &[7; 1000]);
        assert_eq!(decompress(codec, &packed, 1000), Ok(vec![7; 1000]));
        assert_eq!(
            decompress(codec, &packed, 999),
            Err(CodecError::TooLarge { codec, limit: 999 })
        );
        assert_eq!(
            decompress(codec, &packed, 0),
            Err(CodecError::TooLarge { codec, limit: 0 })
        );
    }
}

/// Zeros that never end, of any length without the memory for it.
struct Zeros(u64);

impl Read for Zeros {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = to.len().min(usize::try_from(self.0).unwrap_or(usize::MAX));
        to[..n].fill(0);
        self.0 -= n as u64;
        Ok(n)
    }
}

/// Small bytes that are gigabytes: refused at the limit, with no more than it held.
#[test]
fn a_bomb_is_refused_at_the_limit() {
    const GIB: u64 = 1 << 30;
    let limit = 1 << 20;
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::copy(&mut Zeros(GIB / 16), &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    let lz4 = {
        let mut info = lz4_flex::frame::FrameInfo::new();
        info.block_size = lz4_flex::frame::BlockSize::Max4MB;
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        io::copy(&mut Zeros(GIB / 16), &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    // 4 GiB in fewer bytes than a batch may have.
    let zstd = zstd::stream::encode_all(Zeros(4 * GIB), 1).unwrap();
    assert!(zstd.len() < 1 << 20, "{} bytes", zstd.len());
    for (codec, bomb) in [(Codec::Gzip, gzip), (Codec::Lz4, lz4), (Codec::Zstd, zstd)] {
        assert_eq!(
            decompress(codec, &bomb, limit),
            Err(CodecError::TooLarge { codec, limit })
        );
    }
    // Snappy says a block's size in front: 4 GiB - 1 in five bytes.
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    let codec = Codec::Snappy;
    assert_eq!(
        decompress(codec, &claim, limit),
        Err(CodecError::TooLarge { codec, limit })
    );
    // The same under a limit that would allow it: six bytes can't be that many.
    assert!(is_corrupt(decompress(codec, &claim, usize::MAX)));
    // Blocks that are each below the limit, and together above it.
    let block = vec![0; limit / 2];
    assert!(decompress(codec, &xerial(&[&block, &block]), limit).is_ok());
    let three = decompress(codec, &xerial(&[&block, &block, b"x"]), limit);
    assert_eq!(three, Err(CodecError::TooLarge { codec, limit }));
}

#[test]
fn snappy_is_read_framed_raw_and_joined() {
    let raw = snap::raw::Encoder::new().compress_vec(b"klamm").unwrap();
    assert_eq!(
        decompress(Codec::Snappy, &raw, 99).as_deref(),
        Ok(&b"klamm"[..])
    );
    let framed = xerial(&[b"kla", b"mm"]);
    assert_eq!(
        decompress(Codec::Snappy, &framed, 99).as_deref(),
        Ok(&b"klamm"[..])
    );
    let joined = [framed.clone(), framed].concat();
    assert_eq!(
        decompress(Codec::Snappy, &joined, 99).as_deref(),
        Ok(&b"klammklamm"[..])
    );
}

#[test]
fn gzip_members_are_read_end_to_end() {
    let joined = [compress(Codec::Gzip, b"kla"), compress(Codec::Gzip, b"mm")].concat();
    assert_eq!(
        decompress(Codec::Gzip, &joined, 99).as_deref(),
        Ok(&b"klamm"[..])
    );
}

#[test]
fn cut_off_data_is_corrupt_and_never_short() {
    let bytes: Vec<u8> = (0..100_000u32)
        .map(|i| (i.wrapping_mul(i) >> 5) as u8)
        .collect();
    for codec in PACKED {
        let packed = compress(codec, &bytes);
        for cut in (1..packed.len())
            .step_by(packed.len() / 61)
            .chain([1, 2, 3, 4])
        {
            let result = decompress(codec, &packed[..packed.len() - cut], 1 << 20);
            // What ends at a block of xerial's framing says nothing of more blocks.
            let whole_blocks = codec == Codec::Snappy
                && matches!(&result, Ok(out) if bytes.starts_with(out) && out.len() % XERIAL_BLOCK == 0);
            assert!(
                whole_blocks || is_corrupt(result),
                "{codec}, {cut} bytes cut"
            );
        }
    }
}

#[test]
fn snappy_framing_that_lies_is_corrupt() {
    let framed = |tail: &[u8]| [&xerial(&[])[..], tail].concat();
    for (name, bytes) in [
        ("half a header", b"\x82SNAPPY\0\0\0".to_vec()),
        ("half a length", framed(&[0, 0])),
        ("negative length", framed(&[0xff; 8])),
        (
            "length beyond the bytes",
            framed(&[0x7f, 0xff, 0xff, 0xff, 0]),
        ),
        ("no block", vec![]),
    ] {
        let result = decompress(Codec::Snappy, &bytes, 1 << 20);
        assert!(is_corrupt(result.clone()), "{name}: {result:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        codec in prop::sample::select(Codec::ALL.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        limit in 0usize..10_000,
    ) {
        if let Ok(out) = decompress(codec, &bytes, limit) {
            prop_assert!(out.len() <= limit);
        }
    }

    /// Further in than random bytes come: good data with some bytes changed.
    #[test]
    fn changed_bytes_are_survived(
        codec in prop::sample::select(PACKED.to_vec()),
        bytes in prop::collection::vec(0u8..4, 1..3000),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut packed = compress(codec, &bytes);
        for (at, byte) in changes {
            let at = at.index(packed.len());
            packed[at] = byte;
        }
        if let Ok(out) = decompress(codec, &packed, 10_000) {
            prop_assert!(out.len() <= 10_000);
        }
    }
}
