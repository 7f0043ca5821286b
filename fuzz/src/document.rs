//! PDFs made of a fuzzer's bytes.

/// The operators that use every resource that a part may define.
const USES: &str = "q /Pattern cs /P0 scn 0 0 40 40 re f Q q /Cs0 cs 0.5 0.5 0.5 0.5 sc 9 9 40 40 re f Q \
    /Gs0 gs /Sh0 sh q 50 0 0 50 0 0 cm /Im0 Do Q /Fm0 Do BT /F0 12 Tf 5 5 Td (Ab\\0011) Tj ET";

/// Filters of streams.
const FILTERS: [&str; 10] = [
    "FlateDecode",
    "LZWDecode",
    "ASCII85Decode",
    "ASCIIHexDecode",
    "RunLengthDecode",
    "CCITTFaxDecode",
    "DCTDecode",
    "JPXDecode",
    "JBIG2Decode",
    "Crypt",
];

const SPACES: [&str; 8] = [
    "/DeviceGray",
    "/DeviceRGB",
    "/DeviceCMYK",
    "[/Indexed /DeviceRGB 1 <000000ffffff>]",
    "[/Lab << /WhitePoint [0.9 1 1.1] >>]",
    "[/CalRGB << /WhitePoint [0.9 1 1.1] >>]",
    "[/Separation /Spot /DeviceCMYK 6 0 R]",
    "[/ICCBased 6 0 R]",
];

/// Fonts by the kind of their file.
const FONTS: [&str; 6] = [
    "/Subtype /Type1 /FontDescriptor << /Type /FontDescriptor /FontName /A /Flags 4 /FontFile 6 0 R >>",
    "/Subtype /TrueType /FontDescriptor << /Type /FontDescriptor /FontName /A /Flags 4 /FontFile2 6 0 R >>",
    "/Subtype /TrueType /Encoding /WinAnsiEncoding /FontDescriptor << /Type /FontDescriptor /FontName /A \
     /Flags 32 /FontFile2 6 0 R >>",
    "/Subtype /Type1 /FontDescriptor << /Type /FontDescriptor /FontName /A /Flags 4 /FontFile3 6 0 R >>",
    "/Subtype /Type0 /Encoding /Identity-H /DescendantFonts [<< /Type /Font /Subtype /CIDFontType0 /BaseFont /A \
     /CIDSystemInfo << /Registry (A) /Ordering (B) /Supplement 0 >> /FontDescriptor << /Type /FontDescriptor \
     /FontName /A /Flags 4 /FontFile3 6 0 R >> >>]",
    "/Subtype /Type0 /Encoding 6 0 R /DescendantFonts [<< /Type /Font /Subtype /CIDFontType2 /BaseFont /A \
     /CIDSystemInfo << /Registry (A) /Ordering (B) /Supplement 0 >> /FontDescriptor << /Type /FontDescriptor \
     /FontName /A /Flags 4 >> >>]",
];

/// The PDF that `data` stands for: by its first byte a part of one, or all of it.
pub fn pdf(data: &[u8]) -> Vec<u8> {
    let (kind, rest) = data.split_first().unwrap_or((&b'%', &[]));
    let choose = |from: &[&'static str], byte: u8| from[usize::from(byte) % from.len()];
    match (kind, rest) {
        (1, contents) => {
            let font = "/Font << /F0 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>";
            of_parts(&stream("", contents), &format!("<< {font} >>"), &[])
        }
        // The resources as text, and behind `%` another object, or a stream's entries and its data.
        (2, parts) => {
            let mut parts = parts.splitn(3, |&byte| byte == b'%');
            let [resources, object] = [(); 2].map(|()| parts.next().unwrap_or_default());
            let [resources, entries] = [resources, object].map(String::from_utf8_lossy);
            let more = match parts.next() {
                Some(data) => stream(&entries, data),
                None => object.to_vec(),
            };
            of_parts(&stream("", USES.as_bytes()), &resources, &more)
        }
        (3, [filter, space, size, image @ ..]) => {
            let (width, height) = (1 + u32::from(size % 16) * 5, 1 + u32::from(size / 16) * 5);
            let (filter, space) = (choose(&FILTERS, *filter), choose(&SPACES, *space));
            let bits = [1, 2, 4, 8, 16][usize::from(*size) % 5];
            let entries = format!(
                "/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace {space} \
                 /BitsPerComponent {bits} /Filter /{filter} /DecodeParms << /K -1 /Columns {width} >>"
            );
            let resources = "<< /XObject << /Im0 6 0 R >> >>";
            of_parts(
                &stream("", USES.as_bytes()),
                resources,
                &stream(&entries, image),
            )
        }
        (4, [kind, file @ ..]) => {
            let font = choose(&FONTS, *kind);
            let entries = [
                "",
                "/Subtype /Type1C",
                "/Subtype /CIDFontType0C",
                "/Subtype /OpenType",
            ];
            let entries = choose(&entries, kind / 6);
            let resources = format!("<< /Font << /F0 << /Type /Font /BaseFont /A {font} >> >> >>");
            of_parts(
                &stream("", USES.as_bytes()),
                &resources,
                &stream(entries, file),
            )
        }
        (5, [one, two, contents @ ..]) => {
            let filters = [choose(&FILTERS, *one), choose(&FILTERS, *two)];
            let filters = match one / 10 % 2 {
                0 => format!("/Filter /{}", filters[0]),
                _ => format!("/Filter [/{} /{}]", filters[0], filters[1]),
            };
            of_parts(&stream(&filters, contents), "<< >>", &[])
        }
        // A function, of samples or a program, in a shading.
        (6, [kind, function @ ..]) => {
            let entries = match kind % 2 {
                0 => "/FunctionType 4 /Domain [0 1] /Range [0 1 0 1 0 1]",
                _ => {
                    "/FunctionType 0 /Domain [0 1] /Range [0 1 0 1 0 1] /Size [4] /BitsPerSample 8"
                }
            };
            let shading = format!(
                "/ShadingType {} /ColorSpace /DeviceRGB /Coords [0 0 9 40 40 20] /Domain [0 1] /Function 6 0 R",
                1 + kind / 2 % 3
            );
            let resources = format!("<< /Shading << /Sh0 << {shading} >> >> >>");
            of_parts(
                &stream("", USES.as_bytes()),
                &resources,
                &stream(entries, function),
            )
        }
        _ if data.starts_with(b"%PDF-") => data.to_vec(),
        _ => [b"%PDF-1.7\n", data].concat(),
    }
}

fn stream(entries: &str, data: &[u8]) -> Vec<u8> {
    let head = format!("<< /Length {} {entries} >>\nstream\n", data.len());
    [head.as_bytes(), data, b"\nendstream"].concat()
}

/// A PDF of one page, with its contents, its resources, and one object more: number 6.
fn of_parts(contents: &[u8], resources: &str, more: &[u8]) -> Vec<u8> {
    let page =
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents 4 0 R /Resources 5 0 R >>";
    let objects: [&[u8]; 6] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        page,
        contents,
        resources.as_bytes(),
        more,
    ];
    let mut out = b"%PDF-1.7\n".to_vec();
    let mut table = String::from("xref\n0 7\n0000000000 65535 f \n");
    for (object, number) in objects.into_iter().zip(1..) {
        table += &format!("{:010} 00000 n \n", out.len());
        out.extend(format!("{number} 0 obj\n").bytes());
        out.extend(object);
        out.extend(b"\nendobj\n");
    }
    let start = out.len();
    table += &format!("trailer\n<< /Size 7 /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n");
    out.extend(table.bytes());
    out
}
