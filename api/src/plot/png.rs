//! Pictures in PNG: without a palette, without transparency, each row as its differences to the one above.

use std::io::{self, Write};

use flate2::{Compression, write::ZlibEncoder};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];

/// Bits of a number, and the kind of colours: red, green, blue.
const DEPTH: u8 = 8;
const RGB: u8 = 2;

/// The filter of a row that is stored as its differences to the one above.
const UP: u8 = 2;

/// Red, green and blue of each pixel, row by row, as PNG (second edition, ISO/IEC 15948:2003).
///
/// # Errors
/// Never: it is written to memory.
pub fn encode(width: u32, height: u32, pixels: &[u8]) -> io::Result<Vec<u8>> {
    let length = 3 * width as usize;
    assert_eq!(pixels.len(), length * height as usize, "three numbers for each pixel");
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([DEPTH, RGB, 0, 0, 0]);

    let mut rows = ZlibEncoder::new(vec![], Compression::default());
    let mut above = vec![0; length];
    for row in pixels.chunks_exact(length) {
        let differences = row.iter().zip(&above).map(|(value, above)| value.wrapping_sub(*above));
        rows.write_all(&std::iter::once(UP).chain(differences).collect::<Vec<u8>>())?;
        above.copy_from_slice(row);
    }

    let mut file = SIGNATURE.to_vec();
    chunk(&mut file, *b"IHDR", &header);
    chunk(&mut file, *b"IDAT", &rows.finish()?);
    chunk(&mut file, *b"IEND", &[]);
    Ok(file)
}

fn chunk(file: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    let content = [&kind, data].concat();
    file.extend((data.len() as u32).to_be_bytes());
    file.extend(&content);
    file.extend(crc32fast::hash(&content).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::ZlibDecoder;

    use super::*;

    #[test]
    fn a_picture_is_what_the_format_says() {
        let file = encode(2, 2, &[255, 0, 0, 0, 255, 0, 254, 0, 0, 0, 255, 9]).expect("memory takes it");
        assert_eq!(file[..8], SIGNATURE);
        // The checksum of the last chunk stands in every PNG.
        assert!(file.ends_with(&[0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82]));
        assert_eq!(file[8..33][..21], *b"\0\0\0\rIHDR\0\0\0\x02\0\0\0\x02\x08\x02\0\0\0");
        let mut rows = vec![];
        ZlibDecoder::new(&file[41..file.len() - 16]).read_to_end(&mut rows).expect("it is compressed");
        assert_eq!(rows, [2, 255, 0, 0, 0, 255, 0, 2, 255, 0, 0, 0, 0, 9]);
    }
}
