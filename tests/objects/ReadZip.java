// Reads a zip archive as a stream, as Java programs do, and prints each entry's name, size and time, in UTF-8.

import java.io.BufferedInputStream;
import java.io.FileInputStream;
import java.io.PrintStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

class ReadZip {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        byte[] buffer = new byte[1 << 20];
        try (ZipInputStream zip =
                new ZipInputStream(new BufferedInputStream(new FileInputStream(arguments[0]), 1 << 20))) {
            for (ZipEntry entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
                long size = 0;
                for (int read = zip.read(buffer); read >= 0; read = zip.read(buffer)) {
                    size += read;
                }
                out.printf("%s\t%d\t%d%n", entry.getName(), size, entry.getLastModifiedTime().toMillis() / 1000);
            }
        }
    }
}
